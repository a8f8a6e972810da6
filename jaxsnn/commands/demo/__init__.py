"""The steps of `jaxsnn demo`, and the file that it begins with."""
