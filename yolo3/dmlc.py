"""The DMLC_* variables, by which the processes of MXNet's parameter server find each other. Imports no MXNet."""
import ipaddress
import os

from yolo3.cli import UserError


def role(text):
    if text not in ('worker', 'server', 'scheduler'):
        raise ValueError


def port(text):
    if not 0 < int(text) < 2 ** 16:
        raise ValueError


def count(text):
    if int(text) < 1:
        raise ValueError


VARIABLES = {'DMLC_ROLE': (role, 'worker, server or scheduler'),
             'DMLC_PS_ROOT_URI': (ipaddress.IPv4Address, "the IPv4 address of the scheduler's host, such as 10.0.0.1"),
             'DMLC_PS_ROOT_PORT': (port, 'the port of the scheduler, 1 to 65535'),
             'DMLC_NUM_WORKER': (count, 'the number of workers, at least 1'),
             'DMLC_NUM_SERVER': (count, 'the number of servers, at least 1')}


def check_environment(prefix=''):
    """Raise UserError, whose text begins with `prefix`, if a variable is missing or wrong: MXNet would wait forever."""
    for name, (check, meaning) in VARIABLES.items():
        text = os.environ.get(name, '')
        try:
            check(text)
        except ValueError:
            raise UserError('%s%s must be %s, but is %s; scripts/cluster/ has scripts that start the processes' % (
                prefix, name, meaning, repr(text) if text else 'not set'))
