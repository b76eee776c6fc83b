"""USB3 Vision cameras of any maker, over `hw.usb`."""
