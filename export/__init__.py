"""Models in the formats of other software: a Hugging Face folder, and ONNX."""
