"""ImageNet MobileNetV1 weights of other frameworks -> GluonCV's: unpickler, readers, naming, folding."""
