"""USB devices from the host's side, over pyusb: what is on the bus, one open device, the bulk queue, recovery."""
