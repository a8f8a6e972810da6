"""Other installed distributions that provide a package `jaxsnn`, whose files mix with these."""

from __future__ import annotations

from importlib import metadata

#: Name of this distribution, and of its package.
DISTRIBUTION = "jaxsnn-nir"
PACKAGE = __name__.partition(".")[0]


def other_distributions() -> tuple[str, ...]:
    """Return the names of the other installed distributions that have files in `jaxsnn/`."""
    return tuple(
        sorted(
            {
                name
                for distribution in metadata.distributions()
                if (name := distribution.metadata["Name"]) not in (None, DISTRIBUTION)
                and any(file.parts[:1] == (PACKAGE,) for file in distribution.files or ())
            }
        )
    )


def mixed_files_advice() -> str:
    """Return a sentence on other distributions with files in `jaxsnn/`, and the way out; "" if there
    is none.
    """
    others = other_distributions()
    if not others:
        return ""
    listed = ", ".join(others)
    return (
        f"{listed} also installs a package 'jaxsnn', and the files of the two mix: "
        f"run pip uninstall {' '.join(others)} {DISTRIBUTION}, then pip install {DISTRIBUTION}"
    )
