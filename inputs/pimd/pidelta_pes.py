"""pidelta for the <pes_path> of an <ffdirect>: the file of `pidelta ffdirect-path`, wherever that is."""

from pidelta.ipi_pes import PideltaDriver

__DRIVER_NAME__ = "pidelta"
__DRIVER_CLASS__ = PideltaDriver.__name__
