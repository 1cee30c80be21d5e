#include "engine/server/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/bridge.h"

namespace flux::server {
namespace {

absl::Status Bad(std::string_view text, std::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("\"", ToAbsl(text), "\" is not ", ToAbsl(wanted)));
}

// A setter for a size, a duration, a count, a text or a truth, with its bounds.
template <typename Field>
std::function<absl::Status(Config&, std::string_view)> Size(Field field, uint64_t low,
                                                            uint64_t high) {
  return [field, low, high](Config& config, std::string_view text) -> absl::Status {
    FLUX_ASSIGN_OR_RETURN(uint64_t value, ParseSize(text));
    if (value < low || value > high) {
      return absl::InvalidArgumentError(
          absl::StrCat(ToAbsl(text), " is outside ", low, " to ", high, " bytes"));
    }
    field(config) = value;
    return absl::OkStatus();
  };
}

template <typename Field>
std::function<absl::Status(Config&, std::string_view)> Time(Field field, absl::Duration low,
                                                            absl::Duration high) {
  return [field, low, high](Config& config, std::string_view text) -> absl::Status {
    FLUX_ASSIGN_OR_RETURN(absl::Duration value, ParseDuration(text));
    if (value < low || value > high) {
      return absl::InvalidArgumentError(absl::StrCat(ToAbsl(text), " is outside ",
                                                     absl::FormatDuration(low), " to ",
                                                     absl::FormatDuration(high)));
    }
    field(config) = value;
    return absl::OkStatus();
  };
}

template <typename Field>
std::function<absl::Status(Config&, std::string_view)> Number(Field field, uint64_t low,
                                                              uint64_t high) {
  return [field, low, high](Config& config, std::string_view text) -> absl::Status {
    uint64_t value = 0;
    if (!absl::SimpleAtoi(ToAbsl(text), &value) || value < low || value > high) {
      return Bad(text, std::string(absl::StrCat("a whole number from ", low, " to ", high)));
    }
    field(config) = static_cast<std::decay_t<decltype(field(config))>>(value);
    return absl::OkStatus();
  };
}

template <typename Field>
std::function<absl::Status(Config&, std::string_view)> Text(Field field,
                                                            std::vector<std::string> choices = {}) {
  return [field, choices](Config& config, std::string_view text) -> absl::Status {
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      std::string known;
      for (const std::string& choice : choices) {
        absl::StrAppend(&known, known.empty() ? "" : ", ", choice);
      }
      return Bad(text, std::string("one of ").append(known));
    }
    field(config) = std::string(text);
    return absl::OkStatus();
  };
}

absl::Status Retention(Config& config, std::string_view text) {
  static const auto set = Time(
      [](Config & c) -> auto& { return c.engine.retention; }, absl::ZeroDuration(),
      absl::Hours(24 * 36'500));
  return set(config, text);
}

template <typename Field>
std::function<absl::Status(Config&, std::string_view)> Truth(Field field) {
  return [field](Config& config, std::string_view text) -> absl::Status {
    if (text != "true" && text != "false") return Bad(text, "true or false");
    field(config) = text == "true";
    return absl::OkStatus();
  };
}

std::vector<Setting> MakeSettings() {
  constexpr uint64_t kGiB = 1ull << 30;
  std::vector<Setting> settings;
  const auto add = [&](std::string name, std::string fallback, std::string help,
                       std::function<absl::Status(Config&, std::string_view)> set) {
    settings.push_back({std::move(name), std::move(help), std::move(fallback), std::move(set)});
  };
  add("data", "", "Directory that holds everything; made if it is not there",
      Text([](Config & c) -> auto& { return c.data; }));
  add("listen", "127.0.0.1:4510", "Address to serve on; port 0 picks a free one",
      Text([](Config & c) -> auto& { return c.listen; }));
  add("port-file", "", "File to write the port to once it is served",
      Text([](Config & c) -> auto& { return c.port_file; }));
  add("log-level", "info", "debug, info, warning or error",
      Text([](Config & c) -> auto& { return c.log_level; }, {"debug", "info", "warning", "error"}));
  add("log-format", "text",
      "text or json, one line or one object an event, on stderr; wrong settings are told in text",
      Text([](Config & c) -> auto& { return c.log_format; }, {"text", "json"}));
  add("shards", "64", "Shards of a new data directory: a power of two, fixed at creation",
      [](Config& config, std::string_view text) -> absl::Status {
        uint32_t value = 0;
        if (!absl::SimpleAtoi(ToAbsl(text), &value) || value == 0 || value > 4096 ||
            (value & (value - 1)) != 0) {
          return Bad(text, "a power of two from 1 to 4096");
        }
        config.shards = value;
        return absl::OkStatus();
      });
  add("payload-bytes-max", "4MiB", "Largest single input or output",
      Size(
          [](Config & c) -> auto& { return c.engine.payload_bytes_max; }, 1024, 32ull << 20));
  add("cache-bytes-max", "256MiB",
      "Memory for executions; above it all leave that no worker needs soon",
      Size(
          [](Config & c) -> auto& { return c.engine.cache_bytes_max; }, 1 << 20, 1024 * kGiB));
  add("inbox-bytes-max", "256MiB",
      "Memory for payloads of unanswered requests, and for workers' messages: more has to wait",
      Size(
          [](Config & c) -> auto& { return c.engine.inbox_bytes_max; }, 1 << 20, 1024 * kGiB));
  add("log-tail-bytes-max", "64MiB", "How much log a restart may have to replay",
      Size(
          [](Config & c) -> auto& { return c.engine.log_tail_bytes_max; }, 1 << 20, 16 * kGiB));
  add("idle-before-eviction", "1s", "How long an execution that only waits stays in memory",
      Time(
          [](Config & c) -> auto& { return c.engine.idle_before_eviction; }, absl::Milliseconds(10),
          absl::Hours(24)));
  add("retention", "720h",
      "How long closed executions are kept; 0: for ever. In the file also a list of rules",
      Retention);
  add("session-grace", "10s", "How long a worker may be away before its tasks go to others",
      Time(
          [](Config & c) -> auto& { return c.engine.dispatch.session_grace; },
          absl::Milliseconds(10), absl::Hours(24)));
  add("ping-interval", "5s", "How often workers are pinged; silent for three, they are away",
      Time(
          [](Config & c) -> auto& { return c.engine.dispatch.ping_interval; },
          absl::Milliseconds(10), absl::Hours(1)));
  add("ready-per-queue-max", "20000",
      "Tasks a queue holds in memory at most; the rest waits on disk",
      Number(
          [](Config & c) -> auto& { return c.engine.dispatch.ready_per_queue_max; }, 1,
          10'000'000));
  add("retry-attempts-max", "10000", "Cap on the attempts a definition may ask for",
      Number(
          [](Config & c) -> auto& { return c.engine.graph.retry_attempts_max; }, 1, 1'000'000'000));
  add("reserve-bytes", "256MiB",
      "Free disk space below which starts, events and new schedules are refused",
      Size(
          [](Config & c) -> auto& { return c.reserve_bytes; }, 0, 1024 * 1024 * kGiB));
  add("ballast-bytes", "64MiB", "File kept to be given up when the disk is full",
      Size(
          [](Config & c) -> auto& { return c.ballast_bytes; }, 0, 16 * kGiB));
  add("reclaim-interval", "10s",
      "How often it is looked whether the space of deleted executions is worth giving back",
      Time(
          [](Config & c) -> auto& { return c.reclaim_interval; }, absl::Milliseconds(10),
          absl::Hours(24)));
  add("drain-timeout", "10s", "How long a shutdown may take to write out and end streams",
      Time(
          [](Config & c) -> auto& { return c.drain_timeout; }, absl::ZeroDuration(),
          absl::Hours(1)));
  add("accept-damaged-tail", "false",
      "Once, after a power failure: drop a damaged end of the log that may hold acknowledged work",
      Truth([](Config & c) -> auto& { return c.accept_damaged_tail; }));
  settings.back().toggle = true;
  add("accept-clock", "false",
      "Once, when a start warns of the clock: it is right, delete by age at once",
      Truth([](Config & c) -> auto& { return c.engine.accept_clock; }));
  settings.back().toggle = true;
  return settings;
}

size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

absl::Status LoadQueues(const YAML::Node& node, Config* config) {
  if (!node.IsMap()) return absl::InvalidArgumentError("`queues` is not a map of queue names");
  for (const auto& entry : node) {
    const auto queue = entry.first.as<std::string>();
    engine::QueueLimits limits;
    if (!entry.second.IsMap()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "queue \"", queue, "\": not a map of concurrency, rate, burst, per-key-concurrency"));
    }
    for (const auto& limit : entry.second) {
      const auto key = limit.first.as<std::string>();
      const auto text = limit.second.as<std::string>();
      double value = 0;
      // A rate may be a part of a task a second, down to a thousandth; the others count tasks.
      const double least = key == "rate" ? 0.001 : 1;
      if (!absl::SimpleAtod(text, &value) || !(value >= least && value <= 1e9)) {
        return absl::InvalidArgumentError(absl::StrCat("queue \"", queue, "\": ", key, ": \"", text,
                                                       "\" is not a number from ", least,
                                                       " to 1000000000"));
      }
      if (key == "concurrency") {
        limits.concurrency_max = static_cast<uint32_t>(value);
      } else if (key == "rate") {
        limits.rate_permille_per_s = static_cast<uint64_t>(value * 1000);
      } else if (key == "burst") {
        limits.burst = static_cast<uint32_t>(value);
      } else if (key == "per-key-concurrency") {
        limits.per_key_concurrency = static_cast<uint32_t>(value);
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat("queue \"", queue, "\": unknown limit \"", key,
                         "\"; known are concurrency, rate, burst, per-key-concurrency"));
      }
    }
    config->engine.dispatch.queue_limits[queue] = limits;
  }
  return absl::OkStatus();
}

absl::Status LoadRetentionRule(const YAML::Node& node, engine::RetentionRule* rule) {
  if (!node.IsMap()) return absl::InvalidArgumentError("not a map of workflow, status, keep");
  bool kept = false;
  for (const auto& entry : node) {
    const auto key = entry.first.as<std::string>();
    const auto text = entry.second.as<std::string>();
    absl::Status status;
    if (key == "workflow") {
      rule->workflow = text;
    } else if (key == "status") {
      std::string known;
      for (int s = engine::kStatusMin; s <= engine::kStatusMax; ++s) {
        const auto each = static_cast<v1::ExecutionStatus>(s);
        if ((engine::StatusBit(each) & engine::kClosedStatuses) == 0) continue;
        const std::string word(engine::StatusWord(each));
        if (word == text) rule->status = each;
        absl::StrAppend(&known, known.empty() ? "" : ", ", word);
      }
      if (rule->status == v1::EXECUTION_STATUS_UNSPECIFIED) {
        status = Bad(text, std::string("one of ").append(known));
      }
    } else if (key == "keep") {
      Config limits;
      kept = true;
      status = Retention(limits, text);
      rule->keep = limits.engine.retention;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown key \"", key, "\"; known are workflow, status, keep"));
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(key, ": ", status.message()));
    }
  }
  if (!kept) return absl::InvalidArgumentError("it does not say how long to `keep` them");
  return absl::OkStatus();
}

absl::Status LoadRetention(const YAML::Node& node, Config* config) {
  std::vector<engine::RetentionRule>& rules = config->engine.retention_rules;
  for (const auto& entry : node) {
    const std::string name = absl::StrCat("line ", entry.Mark().line + 1, ": rule ",
                                          rules.size() + 1, " of retention: ");
    if (!rules.empty() && rules.back().workflow.empty() &&
        rules.back().status == v1::EXECUTION_STATUS_UNSPECIFIED) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, "it never counts: the rule before it fits every execution"));
    }
    engine::RetentionRule rule;
    if (absl::Status status = LoadRetentionRule(entry, &rule); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(name, status.message()));
    }
    rules.push_back(std::move(rule));
  }
  return absl::OkStatus();
}

absl::Status LoadFile(const std::string& file, std::map<std::string, std::string>* values,
                      Config* config) {
  YAML::Node root;
  // yaml-cpp reports by exception; this is the boundary.
  try {
    root = YAML::LoadFile(file);
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return absl::InvalidArgumentError("it is not a map of settings");
    for (const auto& entry : root) {
      const auto key = entry.first.as<std::string>();
      if (key == "queues") {
        FLUX_RETURN_IF_ERROR(LoadQueues(entry.second, config));
        continue;
      }
      if (key == "retention" && entry.second.IsSequence()) {
        FLUX_RETURN_IF_ERROR(LoadRetention(entry.second, config));
        continue;
      }
      const std::vector<Setting>& settings = Settings();
      if (std::none_of(settings.begin(), settings.end(),
                       [&](const Setting& s) { return s.name == key; })) {
        std::string nearest = "queues";
        for (const Setting& setting : settings) {
          if (Distance(setting.name, key) < Distance(nearest, key)) nearest = setting.name;
        }
        return absl::InvalidArgumentError(
            absl::StrCat("line ", entry.first.Mark().line + 1, ": unknown setting \"", key, "\"; ",
                         Distance(nearest, key) <= 2 + key.size() / 4
                             ? absl::StrCat("did you mean \"", nearest, "\"?")
                             : "fluxd --help lists them"));
      }
      if (!entry.second.IsScalar()) {
        return absl::InvalidArgumentError(absl::StrCat("line ", entry.first.Mark().line + 1, ": ",
                                                       key, " is not a single value"));
      }
      (*values)[key] = entry.second.as<std::string>();
    }
  } catch (const YAML::BadFile&) {
    return absl::NotFoundError("it cannot be read");
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(e.what());
  }
  return absl::OkStatus();
}

}  // namespace

std::string Setting::Variable() const {
  std::string out = "FLUX_";
  for (char c : name)
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

const std::vector<Setting>& Settings() {
  static const std::vector<Setting>* const kSettings = new std::vector<Setting>(MakeSettings());
  return *kSettings;
}

absl::StatusOr<uint64_t> ParseSize(std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() && std::isdigit(static_cast<unsigned char>(text[digits]))) ++digits;
  uint64_t value = 0;
  const std::string_view unit = text.substr(digits);
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (digits == 0 || shift < 0 || !absl::SimpleAtoi(ToAbsl(text.substr(0, digits)), &value) ||
      value > (UINT64_MAX >> shift)) {
    return Bad(text, "a size such as 65536, 64KiB, 4MiB or 1GiB");
  }
  return value << shift;
}

absl::StatusOr<absl::Duration> ParseDuration(std::string_view text) {
  absl::Duration value;
  if (!absl::ParseDuration(ToAbsl(text), &value) || value < absl::ZeroDuration() ||
      value == absl::InfiniteDuration()) {
    return Bad(text, "a duration such as 250ms, 10s, 5m or 1h30m");
  }
  return value;
}

absl::Status LoadConfig(const std::map<std::string, std::string>& flags,
                        const std::function<const char*(const std::string&)>& variable,
                        const std::string& file, Config* config) {
  std::map<std::string, std::string> in_file;
  if (!file.empty()) {
    if (absl::Status status = LoadFile(file, &in_file, config); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
    }
  }
  for (const Setting& setting : Settings()) {
    std::string text;
    std::string origin;
    if (const auto flag = flags.find(setting.name); flag != flags.end()) {
      text = flag->second;
      origin = absl::StrCat("--", setting.name);
      if (setting.name == "retention") config->engine.retention_rules.clear();
    } else if (const char* value = variable(setting.Variable()); value != nullptr) {
      text = value;
      origin = setting.Variable();
      if (setting.name == "retention") config->engine.retention_rules.clear();
    } else if (const auto entry = in_file.find(setting.name); entry != in_file.end()) {
      text = entry->second;
      origin = absl::StrCat(file, ": ", setting.name);
    } else {
      text = setting.fallback;
      if (text.empty()) continue;
      origin = absl::StrCat("default of ", setting.name);
    }
    if (absl::Status status = setting.set(*config, text); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(origin, ": ", status.message()));
    }
    if (setting.name == "data") config->data_origin = std::move(origin);
  }
  return absl::OkStatus();
}

}  // namespace flux::server
