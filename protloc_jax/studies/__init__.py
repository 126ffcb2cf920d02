"""Studies: each composes evaluators into its tables, with published numbers beside measured ones, and a report."""
