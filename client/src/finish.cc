// The end of a trace: names, whole-graph checks, serialisation, and the memo of what was traced.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "client/src/tracer.h"
#include "flux/graph.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "openssl/evp.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

absl::StatusOr<std::string> Sha256(const std::string& bytes) {
  std::string digest(EVP_MAX_MD_SIZE, '\0');
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()), &size,
                 EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("SHA-256 is not available in this OpenSSL");
  }
  digest.resize(size);
  return digest;
}

absl::StatusOr<Traced> TraceNow(const WorkflowSpec& spec) {
  auto tracer = std::make_shared<Tracer>(spec);
  Graph graph(tracer);
  spec.build(graph);
  return std::move(*tracer).Finish();
}

}  // namespace

// Given names first; the others are made from what the step does, in the order of the text.
void Tracer::NameSteps() {
  std::unordered_map<std::string, Location> taken;
  for (size_t s = 0; s < scopes_.size(); ++s) {
    for (size_t i = 0; i < scopes_[s].steps.size(); ++i) {
      const StepInfo& info = scopes_[s].steps[i];
      if (info.given_name.empty()) continue;
      const auto [other, fresh] = taken.emplace(info.given_name, info.at);
      if (!fresh) {
        Fail(info.at, "two steps are named \"", info.given_name, "\" (the other one at ",
             other->second.file, ":", other->second.line, "); names are unique in a workflow");
      }
      StepAt(static_cast<uint32_t>(s), static_cast<uint32_t>(i)).set_name(info.given_name);
    }
  }
  std::unordered_map<std::string, uint32_t> counts;
  for (size_t s = 0; s < scopes_.size(); ++s) {
    for (size_t i = 0; i < scopes_[s].steps.size(); ++i) {
      const StepInfo& info = scopes_[s].steps[i];
      if (!info.given_name.empty()) continue;
      uint32_t& count = counts[info.base_name];
      std::string name;
      do {
        ++count;
        name = count == 1 ? info.base_name : absl::StrCat(info.base_name, "-", count);
      } while (!taken.emplace(name, info.at).second);
      StepAt(static_cast<uint32_t>(s), static_cast<uint32_t>(i)).set_name(std::move(name));
    }
  }
}

void Tracer::CheckStep(const v1::Step& step, const StepInfo& info) {
  const auto fail = [&](std::string_view why) {
    Fail(info.at, "step \"", step.name(), "\": ", ToAbsl(why));
  };
  switch (step.kind_case()) {
    case v1::Step::kLoop:
      if (!step.loop().has_done() && step.loop().turns() == 0) {
        fail("the loop never ends; return g.Until(done, next) from its body, or give it Turns()");
      }
      break;
    case v1::Step::kSwitch:
      if (step.switch_().cases().empty() && !step.switch_().has_default_body()) {
        fail("a Switch needs a Case or a Default");
      }
      break;
    case v1::Step::kWaitEvent:
      if (step.wait_event().has_default_value() && step.wait_event().timeout_ms() == 0) {
        fail("it has a Default but no Timeout, so that the default would never be taken");
      }
      break;
    case v1::Step::kJoin:
      if ((step.join().first() != 0 || step.join().tolerated_failures() != 0) &&
          step.after_size() > 0) {
        fail(
            "a Join with First or TolerateFailures does not go with After; put the After on its "
            "inputs");
      }
      break;
    case v1::Step::kChild:
      if (step.child().id_input() && step.has_undo()) {
        fail(
            "OnUndo does not go with a WorkflowId that is a value; undo the child in a workflow "
            "of its own");
      }
      break;
    case v1::Step::kFail:
      if (absl::StartsWith(step.fail().failure().type(), "flux.")) {
        fail("error types that begin with \"flux.\" belong to Flux; fail with one of your own");
      }
      break;
    default:
      break;
  }
}

void Tracer::SetParameterCounts() {
  for (size_t s = 1; s < scopes_.size(); ++s) {
    const ScopeInfo& info = scopes_[s];
    const v1::Step& owner = StepAt(info.owner_scope, info.owner_step);
    int parameters =
        owner.inputs_size();  // map, loop: the item or state stands where the first input does
    if (info.role == BodyRole::kCase || info.role == BodyRole::kDefault) {
      parameters -= 1;  // the condition stays outside
    } else if (info.role == BodyRole::kCatch) {
      parameters = owner.catches(info.clause).captures_size() + 1;
    }
    definition_.mutable_scopes(static_cast<int>(s))
        ->set_parameters(static_cast<uint32_t>(parameters));
  }
}

absl::StatusOr<Traced> Tracer::Finish() && {
  if (status_.ok() && open_.size() != 1)
    Fail({}, "a body is still open at the end of the workflow");
  if (status_.ok() && !definition_.scopes(0).has_result()) Fail({}, "the workflow has no result");
  if (status_.ok()) {
    NameSteps();
    SetParameterCounts();
    for (size_t s = 0; s < scopes_.size(); ++s) {
      for (size_t i = 0; i < scopes_[s].steps.size(); ++i) {
        CheckStep(StepAt(static_cast<uint32_t>(s), static_cast<uint32_t>(i)), scopes_[s].steps[i]);
      }
    }
  }
  Traced traced;
  if (status_.ok()) {
    google::protobuf::io::StringOutputStream stream(&traced.definition_bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    output.SetSerializationDeterministic(true);
    if (definition_.ByteSizeLong() > kDefinitionBytesMax) {
      Fail({}, "the definition has ", definition_.ByteSizeLong(), " bytes, at most ",
           kDefinitionBytesMax, "; pass large literals as inputs");
    } else if (!definition_.SerializeToCodedStream(&output)) {
      Fail({}, "the definition cannot be serialised");
    }
  }
  finished_ = true;
  if (!status_.ok()) return status_;
  FLUX_ASSIGN_OR_RETURN(traced.hash, Sha256(traced.definition_bytes));
  traced.children = std::move(children_);
  return traced;
}

absl::StatusOr<Traced> TraceFragment(const std::function<void(Graph&)>& build) {
  auto tracer = std::make_shared<Tracer>(
      WorkflowSpec{.name = "continuation", .options = {}, .build = nullptr});
  Graph graph(tracer);
  build(graph);
  return std::move(*tracer).Finish();
}

const absl::StatusOr<Traced>& TraceOnce(const WorkflowSpec& spec) {
  // A memo of pure results, never destroyed: workflows may be used by static objects' destructors.
  // The lambda alone does not tell workflows apart, since a function may make several out of one.
  struct Memo {
    std::mutex mutex;
    std::map<std::string, std::unique_ptr<absl::StatusOr<Traced>>> traced;
  };
  static Memo& memo = *new Memo;
  const std::string key =
      absl::StrCat(reinterpret_cast<uintptr_t>(spec.build), "\n", ToAbsl(spec.name), "\n",
                   ToAbsl(spec.options.version), "\n", ToAbsl(spec.options.description), "\n",
                   absl::ToInt64Nanoseconds(spec.options.execution_timeout));
  {
    std::lock_guard lock(memo.mutex);
    if (const auto found = memo.traced.find(key); found != memo.traced.end()) return *found->second;
  }
  // Outside the lock: the lambda is user code.
  auto traced = std::make_unique<absl::StatusOr<Traced>>(TraceNow(spec));
  std::lock_guard lock(memo.mutex);
  return *memo.traced.emplace(key, std::move(traced)).first->second;
}

}  // namespace flux::internal
