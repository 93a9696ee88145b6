"""Settings that ship with the package: `thresholds/*.yaml`, read by `toploc.thresholds.bounds.bounds.Thresholds.load`."""
