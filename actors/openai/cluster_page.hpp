// The page at `/`: nodes, devices, links, plan and rates, drawn in the browser from /cluster.
#pragma once

#include <string_view>

namespace hexgen::actors {

/// One self-contained HTML document (cluster_page.html, embedded when the build is configured).
[[nodiscard]] std::string_view cluster_page();

} // namespace hexgen::actors
