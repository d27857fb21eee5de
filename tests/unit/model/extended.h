/* Settings of a container for tests: each of those that container_is_extended() is about, with a value that is nobody's default. */
#pragma once

#include "model/container.h"

void container_extend(struct container *c);
