"""Models as others read them: a Hugging Face folder, and ONNX."""
