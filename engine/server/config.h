// fluxd's settings: each is one flag, one environment variable and one key of the YAML file, with
// one meaning.
//
//   --session-grace 10s        FLUX_SESSION_GRACE=10s        session-grace: 10s
//
// A flag wins over the environment, the environment over the file, the file over the default.
// Durations are written as 250ms, 10s, 5m, 1h30m; sizes as 65536, 64KiB, 4MiB, 1GiB.
#ifndef FLUX_ENGINE_SERVER_CONFIG_H_
#define FLUX_ENGINE_SERVER_CONFIG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/shard/engine.h"

namespace flux::server {

struct Config {
  std::string data;
  std::string data_origin;  // for people: --data, FLUX_DATA, or the file that says it
  std::string listen = "127.0.0.1:4510";
  std::string port_file;
  std::string log_level = "info";
  std::string log_format = "text";
  uint32_t shards = 64;
  uint64_t reserve_bytes = 256ull << 20;
  uint64_t ballast_bytes = 64ull << 20;
  absl::Duration reclaim_interval = absl::Seconds(10);
  bool accept_damaged_tail = false;
  absl::Duration drain_timeout = absl::Seconds(10);
  engine::EngineOptions engine;
};

// One setting. `name` is the flag without dashes and the YAML key; the variable is FLUX_ and the
// name in upper case with underscores.
struct Setting {
  std::string name;
  std::string help;
  std::string fallback;  // the default, as text
  std::function<absl::Status(Config&, std::string_view)> set;
  bool toggle = false;  // the flag may stand alone: true

  std::string Variable() const;
};

const std::vector<Setting>& Settings();

absl::StatusOr<uint64_t> ParseSize(std::string_view text);
absl::StatusOr<absl::Duration> ParseDuration(std::string_view text);

// Merges file, environment and flags into `config`. InvalidArgument names the setting, where it was
// given, what is wrong and what is allowed; unknown YAML keys are refused with the nearest known
// one. `flags`: name → text, those given. `variable`: looks up the environment (null if unset).
// `file`: path, may be empty. The file may also hold `queues:`, a map of queue name to
// {concurrency, rate, burst, per-key-concurrency}, and for `retention:` a list of
// {workflow, status, keep}, which a flag or variable replaces as a whole.
absl::Status LoadConfig(const std::map<std::string, std::string>& flags,
                        const std::function<const char*(const std::string&)>& variable,
                        const std::string& file, Config* config);

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_CONFIG_H_
