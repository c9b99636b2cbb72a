#error "cuRAND is not simulated: draw random numbers on the host and pass them"
