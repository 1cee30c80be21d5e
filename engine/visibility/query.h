// The language in which executions are asked for:
//
//   status = "failed" and label.tenant = "acme" and started > -2h
//
//   query      = and { "or" and }
//   and        = not { "and" not }
//   not        = "not" not | "(" query ")" | comparison
//   comparison = field operator value | field [ "not" ] "in" "(" value { "," value } ")"
//   operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "^="           (^=: begins with)
//
// docs/GUIDE.md tells users about fields and values. Every comparison is true or false, so `not` is
// exact: a label or failure type that is not there is the empty string; the close time of an open
// execution compares false with everything; its duration is the time since its start.
#ifndef FLUX_ENGINE_VISIBILITY_QUERY_H_
#define FLUX_ENGINE_VISIBILITY_QUERY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/run_id.h"
#include "flux/v1/record.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::engine {

// Limits of a query; each refused with InvalidArgument naming the figure.
inline constexpr size_t kQueryBytesMax = 16 * 1024;
inline constexpr int kQueryDepthMax = 64;     // parentheses and nots within one another
inline constexpr int kQueryValuesMax = 1000;  // compared with, all together

// A set of ExecutionStatus, a bit each.
using StatusSet = uint32_t;
constexpr StatusSet StatusBit(v1::ExecutionStatus status) {
  return StatusSet{1} << static_cast<uint32_t>(status);
}
inline constexpr int kStatusMin = v1::EXECUTION_STATUS_RUNNING;
inline constexpr int kStatusMax = v1::EXECUTION_STATUS_PAUSED;
inline constexpr StatusSet kOpenStatuses =
    StatusBit(v1::EXECUTION_STATUS_RUNNING) | StatusBit(v1::EXECUTION_STATUS_CANCELLING) |
    StatusBit(v1::EXECUTION_STATUS_FAILING) | StatusBit(v1::EXECUTION_STATUS_PAUSED);
inline constexpr StatusSet kClosedStatuses =
    StatusBit(v1::EXECUTION_STATUS_COMPLETED) | StatusBit(v1::EXECUTION_STATUS_FAILED) |
    StatusBit(v1::EXECUTION_STATUS_CANCELLED) | StatusBit(v1::EXECUTION_STATUS_TERMINATED) |
    StatusBit(v1::EXECUTION_STATUS_SKIPPED);
inline constexpr StatusSet kAllStatuses = kOpenStatuses | kClosedStatuses;

// What is known of an execution when it is held against a query. Views: whoever fills it owns the
// text. `labels` and `steps` are unknown while `labels` is null, but for the one label that is
// named.
struct ExecutionFields {
  RunId run;
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;
  int64_t start_ms = 0;
  int64_t close_ms = 0;  // 0: open
  std::string_view workflow;
  std::string_view workflow_id;
  std::string_view version;
  std::string_view failure_type;
  uint64_t parked = 0;
  const google::protobuf::Map<std::string, std::string>* labels = nullptr;
  uint64_t steps = 0;
  std::string_view known_label;  // empty: none
  std::string_view known_value;
};
ExecutionFields FieldsOf(const v1::ExecutionSummary& summary);

enum class Match { kNo, kYes, kUnknown };  // kUnknown: labels or steps decide

// What every match has in common; what an index is searched by. Never narrower than the query.
struct QueryBounds {
  StatusSet statuses = kAllStatuses;
  int64_t start_min = INT64_MIN;  // inclusive, both
  int64_t start_max = INT64_MAX;
  struct Label {
    std::string name;
    std::vector<std::string> values;  // one of them; none is empty
  };
  // Each set: one of these. An empty list means that nothing matches.
  std::optional<std::vector<std::string>> workflows;
  std::optional<std::vector<std::string>> workflow_ids;
  std::optional<std::vector<RunId>> runs;
  std::string workflow_id_prefix;
  std::vector<Label> labels;  // all of them, at most one a name
};

// A parsed query. A value; immutable; thread-safe. Knows no clock: relative times count from the
// `now_ms` it was parsed with.
class Query {
 public:
  Query() = default;  // matches everything

  // InvalidArgument: says where (counted from 1), what was expected there, and which fields there
  // are. The empty text (or blanks) matches everything.
  static absl::StatusOr<Query> Parse(std::string_view text, int64_t now_ms);

  // The query of a filter, and its other fields. The namespace is not part of it. InvalidArgument
  // as above, or an unknown status.
  static absl::StatusOr<Query> FromFilter(const v1::ExecutionFilter& filter, int64_t now_ms);

  Match Check(const ExecutionFields& fields) const;
  QueryBounds Bounds() const;
  // True if status and workflow decide alone: what counts are kept by.
  bool OnlyStatusAndWorkflow() const;
  int64_t now_ms() const { return now_ms_; }

 private:
  friend class QueryParser;

  enum class Field {
    kWorkflow,
    kVersion,
    kStatus,
    kWorkflowId,
    kRunId,
    kStarted,
    kClosed,
    kDuration,
    kFailureType,
    kParked,
    kSteps,
    kLabel,
  };
  enum class Operator { kEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual, kPrefix };
  enum class Kind { kAll, kAny, kTerm };

  // kAll of no children is true, kAny of none is false. Negation is pushed down to the terms.
  struct Node {
    Kind kind = Kind::kAll;
    std::vector<Node> children;
    // A term: its field compared with any of its values.
    Field field = Field::kStatus;
    Operator op = Operator::kEqual;
    bool negated = false;
    std::string label;
    std::vector<std::string> texts;  // by value: of text fields
    std::vector<int64_t> numbers;    // of times, durations and counts
    StatusSet statuses = 0;
  };

  static Node Negate(Node node);
  Match CheckNode(const Node& node, const ExecutionFields& fields) const;
  bool Holds(const Node& term, const ExecutionFields& fields) const;
  // Is the number what a term asks for, its negation apart?
  static bool HoldsOf(const Node& term, int64_t value);
  static QueryBounds BoundsOf(const Node& node);
  static QueryBounds BoundsOfTerm(const Node& term);
  static bool NeedsOnlyStatusAndWorkflow(const Node& node);

  Node root_;
  int64_t now_ms_ = 0;
};

// "failed", "running", …; empty for an unknown one.
std::string_view StatusWord(v1::ExecutionStatus status);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_VISIBILITY_QUERY_H_
