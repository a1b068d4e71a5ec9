{{ staged_event('item_tag') }}
