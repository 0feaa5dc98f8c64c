# SPDX-License-Identifier: MIT-0
"""What all judges of a run have in common."""

import os


class Judge:
    """seconds: for how long a run may last; status: how the image must end; failure: set by a judge
    that is at work while the machine runs, when it gives up and ends it."""

    seconds = 60
    status = 0
    failure = None

    def __init__(self, directory, front):
        self.directory = directory
        self.front = front

    def path(self, name):
        return os.path.join(self.directory, name)

    def arguments(self):
        """Those of QEMU that make the device and its back-end."""
        raise NotImplementedError

    def started(self, machine):
        """The machine runs."""

    def line(self, machine, text):
        """The console printed a line."""

    def ended(self):
        """The machine ended: one line about what was found true; Failed if it was not."""
        raise NotImplementedError
