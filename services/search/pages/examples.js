// Before anything is drawn: what the page is for, and example sketches to begin with.

import { ApiError, get, query } from "./api.js";
import { h } from "./dom.js";
import { fileOf, opened } from "./pictures.js";

const SHOWN = 12;

export class Examples {
  #list = [];

  /** show(picture): searches with an example. */
  constructor(pictures, show) {
    Object.assign(this, { pictures, show });
  }

  /** Asks which examples a model's index has; none where it cannot say. */
  async offer(model) {
    if (!model) return;
    try {
      const { index, examples } = await get(`/examples${query({ model: model.alias })}`);
      this.#list = examples.slice(0, SHOWN).map((example) => ({ ...example, index }));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#list = [];
    }
  }

  async choose(id) {
    const example = this.#list.find((each) => String(each.id) === id);
    const picture = await opened(await fileOf(example.image));
    if (picture) this.show({ ...picture, example: { id: example.id, index: example.index } });
  }

  /** What stands where photos will be. models: null as long as the service has not said which there are. */
  invitation(models, empty) {
    if (!models || !empty) return h("p", { class: "quiet", "data-key": "wait" }, models ? "" : "Asking the service …");
    if (!models.length) {
      return h("div", { class: "empty", "data-key": "none" }, h("h2", {}, "No photos are served yet"), h("p", {}, "Start the service with an index, or promote a model that has one:"),
        h("pre", {}, "python -m services.search --index URI"));
    }
    const photos = models[0].photos.toLocaleString("en");
    return h("div", { class: "invitation", "data-key": "invitation" },
      h("h2", {}, "Draw something, and photos appear"),
      h("p", { class: "quiet" }, `The nearest of ${photos} photos are shown while you draw. Or paste, drop or upload a picture.`),
      this.#list.length > 0 && [h("h3", {}, "Or begin with one of these sketches"), h("ul", { class: "examples" }, this.#list.map((example) => this.#one(example)))]);
  }

  #one({ id, class_name: name, image }) {
    return h("li", { "data-key": `example-${id}` },
      h("button", { type: "button", class: "photo", "data-example": id, "aria-label": `Search with the example ${name || id}` },
        h("img", { src: this.pictures.source(image), alt: "", width: 96, height: 96 })),
      h("span", { class: "quiet" }, name));
  }
}
