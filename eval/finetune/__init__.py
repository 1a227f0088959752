"""Fine-tuning: tasks, their forms, losses and metrics, one trainer, and the command of a whole benchmark."""
