"""The graph and its nodes: records, shapes, validation, and the record of a dialect."""
