"""What every part of the model uses: growing arrays, compiled loops, the device, random numbers."""
