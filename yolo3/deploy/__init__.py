"""An exported detector without MXNet: ONNX runtimes, a web service, live video."""
