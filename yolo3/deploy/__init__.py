"""A detector in use, without MXNet if it is exported: ONNX runtimes, a web service, video."""
