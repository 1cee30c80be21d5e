// The command line of `fluxctl bulk`.
#include <memory>
#include <string>

#include "client/fluxctl/app.h"

namespace flux::ctl {

void CommandTree::AddBulks() {
  CLI::App* group = Group(&app_, "bulk", "What is done to all executions that a query matches",
                          "fluxctl bulk list");
  Leaf(group, "list", "List bulk operations, newest first; the last hundred that ended are kept",
       "  fluxctl bulk list\n"
       "  fluxctl bulk list -o jsonl | jq 'select(.state == \"running\") | .id'",
       [](Context& context) { return ListBulks(context); });

  auto show = std::make_shared<std::string>();
  CLI::App* leaf =
      Leaf(group, "show", "Show a bulk operation: its query, its progress, the first errors",
           "  fluxctl bulk show 0196f2c41a3b5d70",
           [show](Context& context) { return ShowBulk(context, *show); });
  leaf->add_option("BULK_ID", *show, "Which bulk operation")->required();

  auto watch = std::make_shared<std::string>();
  leaf = Leaf(group, "watch", "Follow a bulk operation until it ends",
              "  fluxctl bulk watch 0196f2c41a3b5d70\n"
              "  fluxctl bulk watch $(fluxctl workflow cancel --query 'workflow = \"sync\"' -y "
              "--detach)",
              [watch](Context& context) { return WatchBulk(context, *watch); });
  leaf->add_option("BULK_ID", *watch, "Which bulk operation")->required();

  auto cancel = std::make_shared<std::string>();
  leaf = Leaf(group, "cancel", "Stop a bulk operation; what it has done stays done",
              "  fluxctl bulk cancel 0196f2c41a3b5d70",
              [cancel](Context& context) { return CancelBulk(context, *cancel); });
  leaf->add_option("BULK_ID", *cancel, "Which bulk operation")->required();
}

}  // namespace flux::ctl
