"""Changes that change nothing: by file, the names around and the change, each with the reason."""

SAME: dict[str, dict[tuple[str, str], str]] = {
    "jaxsnn/bss2/check/check_mapping.py": {
        ("_wanted", "1 -> 2"): "any negative number says that there is none, and a longer table "
        "has entries that nobody asks for",
    },
    "jaxsnn/bss2/check/propagate.py": {
        ("", "1 -> 2"): "how much is added up in one part, for memory",
        ("", "22 -> 23"): "likewise",
        (
            "responses",
            "1 -> 2",
        ): "synapses are added up in parts, for memory, and the sum is the same",
        ("responses", "start + 1 -> start - 1"): "a part has one synapse or more without it, since "
        "none has as many events as a part",
    },
}
