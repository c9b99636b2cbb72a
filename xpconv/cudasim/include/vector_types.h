// All of it is built in.
#pragma once
#include "cudasim.h"
