"""The independent check of a mapping."""

from jaxsnn.bss2.check.check_mapping import check_mapping, located, refuse_wrong

#: Short name of `check_mapping`.
check = check_mapping

__all__ = ["check", "check_mapping", "located", "refuse_wrong"]
