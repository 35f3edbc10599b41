// Stands for Gloo's header, which the torch wheel does not ship: names only.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
}  // namespace gloo::transport
