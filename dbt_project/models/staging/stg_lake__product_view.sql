{{ staged_event('product_view') }}
