"""``python -m ovam_labeler``."""

from ovam_labeler.cli.main import run

if __name__ == "__main__":
    run()
