"""Views of Sweet Home 3D's models (CC0 and CC-BY-3.0), from Debian's ``sweethome3d-furniture``; rendered with ``vtk``.

Each usable model is drawn from :data:`VIEWS` directions as RGBA PNG files of the run folder. A model's views are drawings
of one concept: pairs of scenes then show the same thing from two sides.
"""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np

from .clipart import Extra, is_held_out, known_label, words_of
from .sources import run_folder

PACKAGE = "sweethome3d-furniture"
VIEWS, PIXELS = 8, 192
# Cut-out frames, plugs and the like: flat grey patches that show no object. Brands and sizes are no words.
_SKIPPED = frozenset(
    re.findall(
        "[a-z]+",
        """door window railing plug switch socket wall parking island hedge pool carpet rails crossing column puff short
yamaha rowboat bush lantern bat tennis station""",
    )
)


def fetch() -> Path:
    """Folder with one sub-folder for each unpacked library."""
    target = run_folder() / "sh3d"
    if not target.exists():
        place = run_folder() / "deb"
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=place, check=True)
        (archive,) = place.glob(f"{PACKAGE}_*.deb")
        subprocess.run(["dpkg", "-x", archive, place / "sh3d"], check=True)
        for library in (place / "sh3d/usr/share/sweethome3d/furniture").glob("*.sh3f"):
            with zipfile.ZipFile(library) as archive_file:
                archive_file.extractall(target / library.stem)
    return target


def models() -> list[tuple[str, Path, str]]:
    """(English name, OBJ file, creator and library) of every model in the catalogues."""
    found = []
    for catalogue in sorted(fetch().glob("*/PluginFurnitureCatalog.properties")):
        text = catalogue.read_text("latin-1")
        names, creators = (dict(re.findall(rf"^{k}#(\d+)=(.*)$", text, re.M)) for k in ("name", "creator"))
        for number, model in re.findall(r"^model#(\d+)=/(.*)$", text, re.M):
            path = catalogue.parent / model.strip().replace("%20", " ")
            if path.suffix == ".obj" and path.exists():
                credit = f"{creators.get(number, '').strip()} ({catalogue.parent.name})"
                found.append((names.get(number, ""), path, credit))
    return found


def views(names: dict[str, str], vocabulary: set[str]) -> list[Extra]:
    """Drawings of every model whose name is usable and no held-out concept's."""
    jobs: list[tuple[str, Path, Path, str]] = []
    for name, path, credit in models():
        words = [w for w in words_of(name) if len(w) > 1]
        hidden = is_held_out([*words, *words_of(path.stem)]) or _SKIPPED & {*words}
        if hidden or not 1 <= len(words) <= 3 or not all(w in vocabulary for w in words):
            continue
        target = run_folder() / "views" / f"{path.parent.parent.name}-{path.stem}"
        jobs.append((" ".join(words), path, target, credit))
    with multiprocessing.Pool(1, maxtasksperchild=40) as pool:  # the renderer keeps what it allocates
        pool.map(_render_job, [(path, target) for _, path, target, _ in jobs], 1)
    return [
        Extra(view, name, known_label(name, names), target.name, credit)
        for name, _, target, credit in jobs
        for view in sorted(target.glob("*.png"))
    ]


def _render_job(job: tuple[Path, Path]) -> None:
    path, target = job
    if target.exists():
        return
    try:
        pictures = render(path, np.random.default_rng(len(path.name)))
    except (RuntimeError, OSError, ValueError):
        pictures = []
    target.mkdir(parents=True)
    for k, picture in enumerate(pictures):
        cv2.imwrite(str(target / f"{k}.png"), cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))


def render(path: Path, rng: np.random.Generator, count: int = VIEWS) -> list[np.ndarray]:
    """RGBA pictures of one model from around it, a little from above."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    vtk.vtkObject.GlobalWarningDisplayOff()
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    obj, mtl = _renamed(path)
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(2 * PIXELS, 2 * PIXELS)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    importer = vtk.vtkOBJImporter()
    importer.SetFileName(str(obj))
    importer.SetFileNameMTL(str(mtl))
    importer.SetTexturePath(str(path.parent))
    importer.SetRenderWindow(window)
    importer.Update()
    scene = window.GetRenderers().GetFirstRenderer()
    scene.SetBackgroundAlpha(0)
    pictures = []
    first = rng.uniform(-40, 40)
    for k in range(count):
        camera = scene.GetActiveCamera()
        camera.SetPosition(0, 0, 1)
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(0, 1, 0)
        # the front is seen more often than the back
        camera.Azimuth(first + (k - count / 2) * 200 / count)
        camera.Elevation(rng.uniform(5, 38))
        scene.ResetCamera()
        camera.Zoom(1.25)
        window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(window)
        grab.SetInputBufferTypeToRGBA()
        grab.ReadFrontBufferOff()
        grab.Update()
        image = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(2 * PIXELS, 2 * PIXELS, 4)[::-1]
        small = image.astype(np.float32)
        small[..., :3] *= small[..., 3:] / 255
        small = cv2.resize(small, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
        small[..., :3] = np.where(small[..., 3:] > 1, small[..., :3] * 255 / np.maximum(small[..., 3:], 1), 0)
        pictures.append(np.clip(small, 0, 255).astype(np.uint8))
    return pictures


def _renamed(path: Path) -> tuple[Path, Path]:
    """Copies of an OBJ file and its materials in which no material is called by a bare number (VTK refuses those)."""
    text = path.read_text("latin-1")
    library = re.search(r"^mtllib\s+(.*)$", text, re.M)
    source = path.parent / library.group(1).strip() if library else path.with_suffix(".mtl")
    obj, mtl = path.with_suffix(".named.obj"), path.with_suffix(".named.mtl")
    obj.write_text(re.sub(r"^usemtl\s+", "usemtl m_", text, flags=re.M), "latin-1")
    materials = source.read_text("latin-1") if source.exists() else ""
    mtl.write_text(re.sub(r"^newmtl\s+", "newmtl m_", materials, flags=re.M), "latin-1")
    return obj, mtl


def main() -> None:
    """Print how many models would be used."""
    print(len(models()), "models")


if __name__ == "__main__":
    main()
