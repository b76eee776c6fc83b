"""An emulated USB3 Vision camera: registers, GenICam description, control protocol, streaming."""
