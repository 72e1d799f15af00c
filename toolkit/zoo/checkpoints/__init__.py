"""Reading weights: our own files, and the namings under which the same networks were published.

`load_weights` recognises the naming from the keys, not from the file type. One module per naming:

| naming | module |
|---|---|
| mvtool | `own` |
| MoViNet-pytorch (the public PyTorch port) | `movinet_port` |
| Model Garden object paths | `model_garden` |
| Model Garden variable names (Keras SavedModel) | `keras_variables` |
| torchvision MobileNetV3 | `torchvision_mobilenet` |
| TSM repository | `tsm` |
| SlowFast repository, X3D | `slowfast` |
| PyTorchVideo: X3D, Slow-R50, R(2+1)D-R50 | `pytorchvideo` |
| Model Garden ResNet3D, object paths and variable names | `resnet3d_garden` |
| torchvision R(2+1)D-18 | `torchvision_r2plus1d` |
"""

from mvtool.zoo.checkpoints.load import LoadedWeights, load_members, load_weights, save_weights, weights_header

__all__ = ["LoadedWeights", "load_members", "load_weights", "save_weights", "weights_header"]
