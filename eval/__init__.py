"""Everything that measures a model: the leave-one-out yardstick, the report of a run."""
