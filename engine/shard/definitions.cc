#include "engine/shard/definitions.h"

#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

std::string Sha256(std::string_view bytes) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

std::string Hex(std::string_view bytes) { return absl::BytesToHexString(ToAbsl(bytes)); }

v1::DefinitionSummary Summarise(const v1::Definition& definition, const std::string& hash,
                                int64_t created_ms) {
  v1::DefinitionSummary out;
  out.set_name(definition.name());
  out.set_version(definition.version());
  out.set_definition_hash(hash);
  out.set_created_time_ms(created_ms);
  std::vector<std::string> tasks;
  uint32_t steps = 0;
  for (const v1::Scope& scope : definition.scopes()) {
    for (const v1::Step& step : scope.steps()) {
      ++steps;
      if (step.has_task()) tasks.push_back(step.task().task());
    }
  }
  std::sort(tasks.begin(), tasks.end());
  tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
  for (std::string& task : tasks) out.add_tasks(std::move(task));
  out.set_steps(steps);
  *out.mutable_parameter_types() = definition.parameter_types();
  out.set_result_type(definition.result_type());
  return out;
}

}  // namespace

std::string DefinitionHash(const v1::Definition& definition) {
  return Sha256(SerializeDeterministic(definition));
}

Definitions::Definitions(store::Store* store, store::Epoch epoch, GraphLimits limits,
                         std::function<void(absl::Status)> on_broken)
    : store_(store), on_broken_(std::move(on_broken)), epoch_(epoch), limits_(limits) {}

absl::Status Definitions::Load() {
  const auto [begin, end] = keys::TableRange(0, keys::Table::kDefinition);
  absl::Status bad;
  // Nobody else is there yet: no lock, since a scan of the memory store has one of its own.
  FLUX_RETURN_IF_ERROR(
      store_->rows().Scan(begin, end, [&](std::string_view key, std::string_view value) {
        const std::string hash(key.substr(begin.size()));
        v1::StoredDefinition stored;
        v1::Definition definition;
        if (!stored.ParseFromArray(value.data(), static_cast<int>(value.size())) ||
            !definition.ParseFromString(stored.definition()) ||
            Sha256(stored.definition()) != hash) {
          bad = absl::DataLossError(absl::StrCat("definition ", Hex(hash),
                                                 " is damaged: its bytes do not have that hash"));
          return false;
        }
        by_hash_[hash] = {Summarise(definition, hash, stored.created_time_ms()), stored.sequence(),
                          nullptr};
        by_name_[definition.name()][stored.sequence()] = hash;
        next_sequence_ = std::max(next_sequence_, stored.sequence() + 1);
        return true;
      }));
  return bad;
}

absl::StatusOr<v1::PutDefinitionResponse> Definitions::Put(const v1::Definition& definition,
                                                           int64_t now_ms) {
  std::string bytes = SerializeDeterministic(definition);
  const std::string hash = Sha256(bytes);
  v1::PutDefinitionResponse response;
  response.set_definition_hash(hash);
  std::vector<std::string> warnings;
  FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                        Graph::Compile(definition, hash, limits_, &warnings));
  for (std::string& warning : warnings) response.add_warnings(std::move(warning));

  std::lock_guard put(put_mutex_);
  uint64_t sequence = 0;
  {
    std::lock_guard lock(mutex_);
    if (by_hash_.contains(hash)) return response;
    sequence = next_sequence_++;
  }
  v1::StoredDefinition stored;
  stored.set_definition(std::move(bytes));
  stored.set_created_time_ms(now_ms);
  stored.set_sequence(sequence);
  store::RowBatch batch;
  batch.shard = 0;
  batch.epoch = epoch_;
  batch.puts.push_back({keys::Definition(hash), stored.SerializeAsString()});
  batch.puts.push_back({keys::Name(definition.name(), sequence), hash});
  if (absl::Status status = store_->rows().WriteSync(std::move(batch)); !status.ok()) {
    // The store stops after a failed write (rule 3), and with it the coordinator: its next process
    // can be asked.
    store::RowBatch nothing;
    nothing.shard = 0;
    nothing.epoch = epoch_;
    if (absl::Status broken = store_->rows().WriteSync(std::move(nothing)); !broken.ok()) {
      on_broken_(std::move(broken));
    }
    return absl::UnavailableError(absl::StrCat("definition \"", definition.name(),
                                               "\" could not be written (", status.message(),
                                               "); try again"));
  }

  std::lock_guard lock(mutex_);
  by_hash_[hash] = {Summarise(definition, hash, now_ms), sequence, std::move(graph)};
  by_name_[definition.name()][sequence] = hash;
  response.set_created(true);
  return response;
}

absl::StatusOr<std::shared_ptr<const Graph>> Definitions::ByHash(std::string_view wanted) {
  const std::string hash(wanted);
  {
    std::lock_guard lock(mutex_);
    const auto it = by_hash_.find(hash);
    if (it == by_hash_.end()) {
      return absl::NotFoundError(absl::StrCat("no definition with hash ", Hex(hash),
                                              "; register it first (PutDefinition)"));
    }
    if (it->second.graph != nullptr) return it->second.graph;
  }
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, store_->rows().Get(keys::Definition(hash)));
  v1::StoredDefinition stored;
  v1::Definition definition;
  if (!row || !stored.ParseFromString(*row) || !definition.ParseFromString(stored.definition())) {
    return absl::DataLossError(absl::StrCat("definition ", Hex(hash), " cannot be read back"));
  }
  // Limits may have been lowered since; what was accepted once stays runnable.
  GraphLimits unlimited = limits_;
  unlimited.steps_max = unlimited.scopes_max = unlimited.inputs_max = 1'000'000'000;
  unlimited.definition_bytes_max = UINT64_MAX / 2;
  FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                        Graph::Compile(definition, hash, unlimited));
  std::lock_guard lock(mutex_);
  // Another thread may have been faster; all share one.
  Entry& entry = by_hash_.at(hash);
  if (entry.graph == nullptr) entry.graph = std::move(graph);
  return entry.graph;
}

absl::StatusOr<std::shared_ptr<const Graph>> Definitions::ByName(std::string_view name,
                                                                 std::string_view version) {
  std::unique_lock lock(mutex_);
  const auto it = by_name_.find(name);
  if (it == by_name_.end()) {
    return absl::NotFoundError(absl::StrCat(
        "unknown workflow \"", ToAbsl(name),
        "\": no definition of that name is registered; start it once from a client that has it, or "
        "use `fluxctl definition put`"));
  }
  std::vector<std::string> versions;
  for (auto hash = it->second.rbegin(); hash != it->second.rend(); ++hash) {
    const Entry& entry = by_hash_.at(hash->second);
    if (version.empty() || entry.summary.version() == version) {
      const std::string found = hash->second;
      lock.unlock();
      return ByHash(found);
    }
    versions.push_back(entry.summary.version());
  }
  return absl::NotFoundError(absl::StrCat("workflow \"", ToAbsl(name), "\" has no version \"",
                                          ToAbsl(version), "\"; it has: ", ListSome(versions)));
}

absl::StatusOr<v1::DefinitionSummary> Definitions::Summary(std::string_view hash) {
  std::lock_guard lock(mutex_);
  const auto it = by_hash_.find(std::string(hash));
  if (it == by_hash_.end()) return absl::NotFoundError(absl::StrCat("no definition ", Hex(hash)));
  return it->second.summary;
}

std::vector<v1::DefinitionSummary> Definitions::List(std::string_view name) const {
  std::lock_guard lock(mutex_);
  std::vector<v1::DefinitionSummary> out;
  for (const auto& [key, hashes] : by_name_) {
    if (!name.empty() && key != name) continue;
    for (auto hash = hashes.rbegin(); hash != hashes.rend(); ++hash) {
      out.push_back(by_hash_.at(hash->second).summary);
    }
  }
  return out;
}

}  // namespace flux::engine
