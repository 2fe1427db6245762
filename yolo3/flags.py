"""The flags of a training, read and checked without MXNet: so that --help and a wrong flag take no time."""
from yolo3.cli import (ArgumentParser, UserError, below_one, count, epochs, input_size, integers, number, positive,
                       processes, seed, share)
from yolo3.detector import mirror
from yolo3.sidecar import DATASETS, network_name

OPTIMIZERS = {'sgd': 'momentum', 'adam': 'beta1'}  # MXNet's, and what they call --momentum


def parse_args(argv=None):
    """The flags of `argv`, by default the command line's, and what follows from them. Raises UserError."""
    parser = ArgumentParser(description='Train YOLOv3 with a MobileNet backbone on VOC, COCO or your own data.')
    for title, add_flags in GROUPS.items():
        add_flags(parser.add_argument_group(title).add_argument)
    args = parser.parse_args(argv)

    args.prefix = '%syolo3_%s_%s' % (args.save_prefix, args.network, args.dataset)
    if args.lr_decay_period > 0:
        args.lr_decay_epoch = list(range(args.lr_decay_period, args.epochs, args.lr_decay_period))
    args.sizes = [args.data_shape] if args.no_random_shape else list(range(args.min_shape, args.max_shape + 1, 32))
    refuse_contradictions(args)
    return args


def network_flags(add):
    add('--network', type=network_name, default='mobilenet1_0', help='mobilenet1_0, 0_75, 0_5 or 0_25')
    add('--backbone-params', default='', help="ImageNet weights of the backbone in GluonCV's form")
    add('--no-pretrained-base', action='store_true', help='start the backbone from random weights')
    add('--pretrained', default='', metavar='FILE', help='.params of a detector, or one of '
        "GluonCV's zoo such as yolo3_mobilenet1.0_coco, to start from; classes of the same name are kept")
    add('--mirror', type=mirror, metavar='URL', help="model store to download GluonCV's weights from")
    add('--resume', default='', help="'auto' continues this training exactly from its checkpoint; a .params file gives "
                                     'only its weights')
    add('--start-epoch', type=count, default=0, help='with --resume FILE: the epoch to continue from')
    add('--anchors', default='', help="'auto' fits them to the training boxes at --data-shape; or 18 numbers: "
        "width,height in pixels, smallest first. Default: those of --pretrained or --resume FILE, else COCO's")


def data_flags(add):
    add('--dataset', type=str.lower, default='voc', choices=DATASETS, help='form of the data set')
    add('--dataset-root', default='', help='folder of your own data, or its data.yaml (yolo); default: '
                                           '~/.mxnet/datasets/voc or coco')
    add('--classes', default='', help="class names a,b,c of your own data; default: VOC's 20, or all in JSON or YAML")
    add('--train-splits', default='', help='2007_trainval,... (voc), names of annotation files (coco) or train (yolo)')
    add('--val-splits', default='', help='2007_test,... (voc), the name of an annotation file (coco) or val (yolo)')
    add('--skip-empty', action='store_true', help='do not train on images without objects')
    add('--on-bad-image', default='', choices=('', 'skip', 'stop'), help='an image that is missing, unreadable or of '
        'another size than annotated: skip it with a warning, or stop. Default: skip up to 1%% of the images')
    add('--num-samples', type=int, default=-1, help='images an epoch; -1: the whole training set')
    add('--num-workers', '-j', type=processes, default=4, help='processes that prepare batches, on this host')


def input_flags(add):
    add('--data-shape', type=input_size, default=416, help='input size in validation, pixels; 320, 416, 608, ...')
    add('--no-random-shape', action='store_true', help='train at --data-shape only: faster, slightly less accurate')
    add('--min-shape', type=input_size, default=320, help='smallest random input size, pixels')
    add('--max-shape', type=input_size, default=608, help='largest random input size, pixels')
    add('--no-flip', action='store_true', help='no mirror images: for digits and text')
    add('--no-crop', action='store_true', help='no random expansion and crop, nor interpolation drawn at random')
    add('--no-colour', action='store_true', help='no random brightness, contrast, saturation and hue')
    add('--no-augment', action='store_true', help='none of the three: only resize, as in validation')
    add('--mixup', action='store_true', help='blend pairs of images')
    add('--mosaic', type=share, default=0, metavar='P', help='experimental: make this share of the samples of four '
        'images')
    add('--no-mixup-epochs', type=count, default=20, help='last epochs without mixup and mosaic')


def loss_flags(add):
    add('--label-smooth', action='store_true', help='smooth the class labels')
    add('--box-loss', default='l2l1', choices=('l2l1', 'ciou'), help="l2l1: GluonCV's; ciou: of Zheng et al. 2020")
    add('--multi-anchor', type=share, default=1, metavar='IOU', help='an object teaches its best anchor, and all that '
        'its shape overlaps more than this. Default: 1, only the best')
    add('--objectness-prior', type=below_one, default=0, metavar='P', help='the probability of an object that a head '
        'from random weights starts from, 0.01 or so. Default: 0, 0.5 or so by chance')
    add('--teacher', default='', metavar='FILE', help='a detector to learn from too (distillation): .params, .onnx '
        "exported with --heads, or of GluonCV's zoo, such as yolo3_darknet53_coco")


def optimizer_flags(add):
    add('--freeze', type=epochs, default=0, metavar='backbone|N', help='train the head alone: to the end, or for the '
        'first N epochs')
    add('--batch-size', type=positive, default=64, help='images a step, over all devices')
    add('--accumulate', type=positive, default=1, help='compute each batch in this many parts, for small GPUs')
    add('--epochs', type=positive, default=200)
    add('--lr', type=number, default=0.001, help='learning rate')
    add('--lr-mode', default='step', choices=('constant', 'step', 'linear', 'poly', 'cosine'))
    add('--lr-decay', type=share, default=0.1, help='factor of each decay (step)')
    add('--lr-decay-period', type=count, default=0, help='decay every so many epochs instead of at --lr-decay-epoch')
    add('--lr-decay-epoch', type=integers, default='160,180', help='epochs at which the learning rate decays (step)')
    add('--lr-final', type=share, default=0, help='share of --lr at which cosine ends')
    add('--warmup-lr', type=number, default=0.0, help='learning rate at the start of the warmup')
    add('--warmup-epochs', type=count, default=0, help='epochs of linear warmup')
    add('--optimizer', default='sgd', choices=OPTIMIZERS, help='sgd with momentum, or adam: experimental, from a '
        'backbone of ImageNet, with --lr 0.0005 or so and --wd 0')
    add('--momentum', type=share, default=0.9, help="of sgd, or adam's beta1")
    add('--wd', type=number, default=0.0005, help='weight decay; with adam, L2 added to the gradient')
    add('--no-wd', action='store_true', help="no weight decay on biases and batch norm's gamma and beta")
    add('--ema', type=below_one, default=0, metavar='DECAY', help='validate and save the exponential moving average of '
        'the weights, 0.998 or so. Default: 0, the weights themselves')
    add('--seed', type=seed, default=233)


def device_flags(add):
    add('--gpus', default='0,1,2,3,4,5,6,7', help="GPUs to train on; '' is the CPU")
    add('--syncbn', action='store_true', help="share batch norm's statistics over the GPUs")
    add('--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPUs that have it')
    add('--kv-store', default='device', choices=('device', 'nccl', 'dist_sync_device', 'dist_sync'),
        help="how gradients are summed over --gpus; dist_...: over several hosts too, by MXNet's parameter server")
    add('--horovod', action='store_true', help='this is a process of horovodrun; each uses the GPU of its local rank')


def file_flags(add):
    add('--log-interval', type=count, default=100, help='batches between two log lines')
    add('--patience', type=count, default=0, metavar='N', help='stop once mAP has not improved for N validations. '
        'Default: 0, never')
    add('--val-interval', type=positive, default=1, help='epochs between two validations')
    add('--save-prefix', default='', help='start of the names of all files written, which may include a folder')
    add('--save-interval', type=count, default=10, help='epochs between two .params kept beside the best')
    add('--keep', type=positive, default=2, help='checkpoints kept, the newest included')
    add('--checkpoint-batches', type=count, default=0, help='batches between two checkpoints within an epoch; 0: none')
    add('--tensorboard', default='', help='folder for TensorBoard scalars')


GROUPS = {  # the titles in --help
    'network and weights': network_flags,
    'data': data_flags,
    'input and augmentation': input_flags,
    'targets and loss': loss_flags,
    'optimization': optimizer_flags,
    'devices': device_flags,
    'logs, validation and files': file_flags,
}


def refuse_contradictions(args):
    """Raise UserError if flags contradict each other, or leave nothing to train."""
    if args.lr_final and args.lr_mode != 'cosine':
        raise UserError('--lr-final is the end of --lr-mode cosine: leave it out with --lr-mode %s' % args.lr_mode)
    if args.optimizer == 'adam' and args.momentum == 1:
        raise UserError("--momentum 1 would never let adam's average begin: give less than 1")
    if args.objectness_prior and (args.pretrained or args.resume not in ('', 'auto')):
        raise UserError('--objectness-prior is for a head from random weights: leave it out with --pretrained and '
                        '--resume FILE')
    if not args.sizes:
        raise UserError('--min-shape %d is larger than --max-shape %d' % (args.min_shape, args.max_shape))
    if args.num_samples == 0:
        raise UserError('--num-samples 0 trains nothing: give a number of images, or -1 for all')
    if args.start_epoch >= args.epochs:
        raise UserError('--start-epoch %d leaves nothing of --epochs %d' % (args.start_epoch, args.epochs))
    if args.warmup_epochs > args.epochs:
        raise UserError('--warmup-epochs %d is longer than the training of --epochs %d'
                        % (args.warmup_epochs, args.epochs))
    if args.pretrained and args.resume not in ('', 'auto'):
        raise UserError('--resume %s and --pretrained %s both give the weights to start from: choose one'
                        % (args.resume, args.pretrained))
    if args.backbone_params and (args.pretrained or args.no_pretrained_base):
        raise UserError('--backbone-params %s and %s both say what the backbone starts from: choose one'
                        % (args.backbone_params, '--pretrained' if args.pretrained else '--no-pretrained-base'))
