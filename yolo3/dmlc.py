"""The DMLC_* variables, by which the processes of MXNet's parameter server find each other. Imports no MXNet."""
import argparse
import ipaddress
import os
import socket

from yolo3.cli import MOST_PROCESSES, UserError, whole


def role(text):
    if text not in ('worker', 'server', 'scheduler'):
        raise ValueError


def port(text):
    whole(text, 1, 2 ** 16 - 1)


def count(text):
    whole(text, 1, MOST_PROCESSES)


def interface(text):
    if text not in [name for _, name in socket.if_nameindex()]:
        raise ValueError


VARIABLES = {'DMLC_ROLE': (role, 'worker, server or scheduler'),
             'DMLC_PS_ROOT_URI': (ipaddress.IPv4Address, "the IPv4 address of the scheduler's host, such as 10.0.0.1"),
             'DMLC_PS_ROOT_PORT': (port, 'the port of the scheduler, 1 to 65535'),
             'DMLC_NUM_WORKER': (count, 'the number of workers, 1 to %d' % MOST_PROCESSES),
             'DMLC_NUM_SERVER': (count, 'the number of servers, 1 to %d' % MOST_PROCESSES)}
OPTIONAL = {'DMLC_NODE_HOST': (ipaddress.IPv4Address, 'the IPv4 address of this host'),
            'DMLC_INTERFACE': (interface, 'a network interface of this host')}


def check_environment(prefix=''):
    """Raise UserError, whose text begins with `prefix`, if a variable is missing or wrong: MXNet would wait forever."""
    for name, (check, meaning) in dict(VARIABLES, **OPTIONAL).items():
        text = os.environ.get(name)
        if text is None and name in OPTIONAL:
            continue
        try:
            check(text or '')
        except (ValueError, argparse.ArgumentTypeError):
            raise UserError('%s%s must be %s, but is %s; scripts/cluster/ has scripts that start the processes' % (
                prefix, name, meaning, 'not set' if text is None else repr(text)))
