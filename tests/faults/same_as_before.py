"""Changes that change nothing: by file, the names around and the change, each with the reason."""

SAME: dict[str, dict[tuple[str, str], str]] = {
    "jaxsnn/bss2/check/check_mapping.py": {
        ("_wanted", "1 -> 2"): "any negative number says that there is none, and a longer table "
        "has entries that nobody asks for",
    },
}
