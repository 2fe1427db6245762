"""What the training benchmarks train: a data set and a network."""
from mxnet import gluon

from yolo3.cli import UserError, comma_list
from yolo3.data.datasets import open_train
from yolo3.network import build


def dataset(args):
    """The training images that the flags name. Raises UserError."""
    images = open_train(args.dataset, args.dataset_root, comma_list(args.classes), comma_list(args.train_splits),
                        skip_empty=True)  # the stock pipeline cannot take an image without objects
    if args.batch_size > len(images):
        raise UserError('--batch-size %d is larger than the training set of %d images' % (args.batch_size, len(images)))
    return images


def network_and_trainer(classes, backbone_params=''):
    """What both pipelines train, slowly: the hybridized network and its trainer."""
    net = build('mobilenet1_0', classes, backbone_params=backbone_params)
    net.hybridize()
    return net, gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1e-6, 'momentum': 0.9, 'wd': 5e-4},
                              update_on_kvstore=False)
