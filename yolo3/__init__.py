"""MobileNet-YOLOv3 on MXNet/GluonCV: what training, evaluation and the demo share."""
