// Every header of the SDK, twice: they include what they use and guard themselves.
#include "flux/codec.h"
#include "flux/continue.h"
#include "flux/error.h"
#include "flux/graph.h"
#include "flux/inline_runner.h"
#include "flux/outcome.h"
#include "flux/page.h"
#include "flux/payload.h"
#include "flux/step.h"
#include "flux/struct.h"
#include "flux/task.h"
#include "flux/task_context.h"
#include "flux/task_set.h"
#include "flux/testing.h"
#include "flux/value.h"
#include "flux/workflow.h"
// Again.
#include "flux/inline_runner.h"
#include "flux/workflow.h"

struct Empty {};
FLUX_STRUCT(Empty)
struct Nested {
  std::vector<Nested> children;
  std::map<std::string, std::optional<double>> weights;
};
FLUX_STRUCT(Nested, children, weights)

inline constexpr flux::ErrorType kGone{"gone", {.non_retriable = true}};
inline constexpr flux::Task<Nested(const Empty&, std::optional<int>)> kGrow{
    "grow",
    {.queue = "q",
     .timeout = absl::Seconds(3),
     .retry = {.max_attempts = 2, .initial_backoff = absl::Milliseconds(10), .factor = 1.5},
     .non_retriable = {kGone},
     .heartbeat = absl::Seconds(1),
     .schedule_to_start = absl::Hours(1),
     .schedule_to_close = absl::Hours(2),
     .priority = 3}};
static_assert(kGrow.name() == "grow");
static_assert(kGrow.options().non_retriable.size() == 1);

inline constexpr flux::Workflow<Nested()> kGrowTwice{
    "grow-twice", [](flux::Graph& g) {
      auto first = g.Call(kGrow, Empty(), 1);
      return g.Call(kGrow, Empty{}, std::nullopt).After(first).Named("second");
    }};

int main() { return kGrowTwice.Trace().ok() ? 0 : 1; }
