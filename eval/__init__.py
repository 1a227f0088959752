"""What a pretrained model is good for: downstream tasks and scoring."""
