"""Tools that cannot be used, each in its own way."""


class HalfTool:
    name = "half"
    api_version = 1

    def parse_config(self, config):
        return config


class OldTool:
    name = "old"
    api_version = 0

    def parse_config(self, config): ...

    def write(self, proposals, config, image_size, version): ...

    def read_correction(self, event, scope, served): ...

    def truths_of(self, correction, image): ...

    def image_of(self, correction): ...
