"""--ema: the exponential moving average of a network's weights, as a network of its own."""
from yolo3.mxnet_setup import mx
from mxnet import gluon

from yolo3 import network


class Ema:
    """The network `net` in training, and the average of its weights and batch norm's statistics after every step.

    After t steps those of step s count decay^(t - s), divided by the sum of all of these: Adam's average and its
    correction at the start (Kingma and Ba 2015). `decay` and the network are those of the flags `args`; `steps`: how
    many are in the average so far, as `state` says. With a decay of 0 there is no `average`: it is None.
    """

    def __init__(self, args, state, net):
        self.net, self.average, self.steps, self._decay, self._pairs = net, None, 0, args.ema, []
        if args.ema:
            self.steps = state.averaged
            self.average = network.build(args.network, state.classes, state.anchors)
            self.average.collect_params().setattr('grad_req', 'null')
            self.average.collect_params().reset_ctx(args.devices)
            mine, trained = [each._collect_params_with_prefix() for each in (self.average, net)]
            self._pairs = [pair for name, parameter in mine.items() if not isinstance(parameter, gluon.Constant)
                           for pair in zip(parameter.list_data(), trained[name].list_data())]

    @property
    def parameters(self):
        """Those of the average: [] without one."""
        return list(self.average.collect_params().values()) if self.average else []

    @property
    def result(self):
        """The network to validate and to save: the average if there is one, else `net`."""
        return self.average or self.net

    def update(self):
        """Take the weights into the average; to be called after each step."""
        if self.average:
            self.steps += 1
            rate = (1 - self._decay) / (1 - self._decay ** self.steps)
            for mean, weight in self._pairs:
                # average += rate * (weight - average), in one pass over the memory.
                mx.nd.sgd_update(mean, weight, lr=rate, wd=1, rescale_grad=-1, out=mean)

    def unify(self, group):
        """See `network.average_running_statistics`: for both networks."""
        network.average_running_statistics(self.net, group)
        if self.average:
            network.average_running_statistics(self.average, group)
