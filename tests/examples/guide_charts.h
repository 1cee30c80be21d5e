// The tasks and the workflow that docs/GUIDE.md begins with; guide_test.cc compares them with the
// guide's own.
#ifndef FLUX_TESTS_EXAMPLES_GUIDE_CHARTS_H_
#define FLUX_TESTS_EXAMPLES_GUIDE_CHARTS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "flux/struct.h"
#include "flux/workflow.h"

namespace charts {

// guide: tasks
struct Page {
  int number = 0;
  std::string text;
};
FLUX_STRUCT(Page, number, text)

inline constexpr flux::ErrorType kBadPage{"bad-page", {.non_retriable = true}};
inline constexpr flux::Task<std::vector<Page>(std::string)> kSplit{
    "charts.split", {.timeout = absl::Minutes(5), .retry = {.max_attempts = 5}}};
inline constexpr flux::Task<std::string(Page)> kCode{"charts.code", {.non_retriable = {kBadPage}}};
inline constexpr flux::Task<std::string(std::vector<std::string>)> kMerge{"charts.merge"};
// guide end

// guide: workflow
inline constexpr flux::Workflow<std::string(std::string)> kCodeChart{
    "code-chart", {.version = "2"}, [](flux::Graph& g, flux::Value<std::string> chart) {
      auto pages = g.Call(kSplit, chart);
      auto codes = g.Map(pages, [&](flux::Value<Page> page) {
                      return g.Call(kCode, page).Retry({.max_attempts = 3}).Queue("nlp");
                    }).MaxParallel(200);
      return g.Call(kMerge, codes);
    }};
// guide end

}  // namespace charts

#endif  // FLUX_TESTS_EXAMPLES_GUIDE_CHARTS_H_
