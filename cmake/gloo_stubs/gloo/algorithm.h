// Stands for Gloo's header, which the torch wheel does not ship; nothing of it is needed.
#pragma once
