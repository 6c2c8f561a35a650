// The search page.

import { searchPage } from "./search.js";
import { start } from "./shell.js";

start({
  openPage: searchPage,
  tokenCommand: "python -m services.jobs tokens make NAME --role searcher",
  upCommand: "python -m services.jobs up",
  elsewhere: (me) => [["Queue", me.jobs_url]],
});
