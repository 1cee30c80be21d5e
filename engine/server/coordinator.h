// A whole coordinator: store, engine, gRPC services, put together from a Config. fluxd runs one; so
// do tests.
#ifndef FLUX_ENGINE_SERVER_COORDINATOR_H_
#define FLUX_ENGINE_SERVER_COORDINATOR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/server/config.h"

namespace flux::server {

// Lifecycle: Start → (serving) → Shutdown → destruction. Thread-safe but for destruction.
class Coordinator {
 public:
  virtual ~Coordinator() = default;

  // Opens the store, recovers, serves. `on_fatal` is called at most once, from any thread, when the
  // store failed: the process must exit then without relying on anything more (rule 3).
  // FailedPrecondition: the directory is not a Flux one, is of a newer format, or is in use.
  // DataLoss: damage, with its place. Unavailable: the address cannot be listened on.
  // InvalidArgument: a setting.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(
      const Config& config, std::function<void(absl::Status)> on_fatal);

  virtual int port() const = 0;
  // Ends streams and calls, writes out what is under way. True if all of it got to the disk in
  // time.
  virtual bool Shutdown() = 0;
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_COORDINATOR_H_
