"""Changes that change nothing: by file, the names around and the change, each with the reason."""

SAME: dict[str, dict[tuple[str, str], str]] = {}
