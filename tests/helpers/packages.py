"""Packages with entry points, as pip would have installed them."""


def installed(site, name, *, version="1.0", files=None, requires=(), **points):
    """Installs a package into a folder, which is made if it is not there; gives the folder.

    Args:
        files: file name -> text of its modules.
        requires: packages that it requires.
        points: group (without "jaxsnn.") -> its entry points, name -> "module:object".
    """
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    header = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    header += [f"Requires-Dist: {requirement}" for requirement in requires]
    (metadata / "METADATA").write_text("\n".join(header))
    lines = []
    for group, entry_points in points.items():
        lines += [
            f"[jaxsnn.{group}]",
            *(f"{key} = {target}" for key, target in entry_points.items()),
            "",
        ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for file, text in (files or {}).items():
        (site / file).write_text(text)
    return site
