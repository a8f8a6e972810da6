"""The independent check of a mapping."""

from jaxsnn.bss2.check.check_mapping import check_mapping, located, refuse_wrong

#: Name of the function inside this package.
check = check_mapping

__all__ = ["check", "check_mapping", "located", "refuse_wrong"]
